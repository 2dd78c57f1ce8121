"""What fits apps into frameworks."""
