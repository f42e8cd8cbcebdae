"""What can be said of a fit once it has ended: how sure its parameters are."""
