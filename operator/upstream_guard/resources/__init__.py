"""The API's resources: raw dicts in, core values out, and status the other way round."""
