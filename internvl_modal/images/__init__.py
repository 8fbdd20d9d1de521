"""Pictures: read them, count their tiles, encode what the model will look at."""
