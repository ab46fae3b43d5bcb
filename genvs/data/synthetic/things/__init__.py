"""Objects other than cars, of the same parts: furniture, vessels, tools, toys, buildings and plants."""
