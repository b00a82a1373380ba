"""Looking at a run in a browser, finished or while it is fitted: a window of panels around pictures of the field."""
