"""Operations of the forward pass: the NumPy oracle and the native core."""
