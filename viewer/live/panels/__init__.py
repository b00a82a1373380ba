"""Controls of the viewer, a file for each tab. Callbacks run on viser's threads and only ask for work."""
