"""Files into volumes, one module for each family of formats; whatever they hold, they are data."""
