"""What the rest of the package stands on: argument checks, files, processes, private names."""
