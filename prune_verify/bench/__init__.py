"""What is measured on this machine: the verb ``bench``, a module for each of its words."""
