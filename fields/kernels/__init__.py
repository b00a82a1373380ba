"""The operations of neural fields: a short torch reference of each, the native kernel, and the one place that chooses."""
