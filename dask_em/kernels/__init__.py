"""The compiled inner loops, each with the NumPy twin that is its specification."""
