"""What is observed, given the hidden state: K components at once, one file each."""
