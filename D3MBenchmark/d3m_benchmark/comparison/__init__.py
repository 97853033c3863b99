"""The comparison of D3M with other methods: trains, measures, and writes the tables of a paper."""
