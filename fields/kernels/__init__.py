"""The operations of neural fields: a torch reference of each, the native kernel, and the one place that chooses."""
