"""Steps of the shipped agent."""
