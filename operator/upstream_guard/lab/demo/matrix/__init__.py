"""The validation matrix: generated services, each changed for real; predicted first, then measured."""
