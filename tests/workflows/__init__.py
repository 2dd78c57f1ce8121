"""Random workflows: what they are, what is to become of them, and how they are run."""
