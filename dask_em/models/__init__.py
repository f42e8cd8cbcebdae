"""What is hidden: the latent structures, one file each."""
