"""How fast it is, measured against a plain server on the same machine in the same run."""
