"""Rules about functions themselves, whoever calls them: how they are named."""
