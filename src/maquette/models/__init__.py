"""One file a family of models; the file's name is its name on the command line. Models know spaces, never content."""
