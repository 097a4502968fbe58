"""The block formats of quantised weights in NumPy: the executable specification."""
