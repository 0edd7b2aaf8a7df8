"""The routes' responders, one file per section of the API."""
