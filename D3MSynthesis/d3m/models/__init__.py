"""What a trained model is: its card, where it is found, and how it is loaded."""
