"""From a recipe to a plan of what will run, and what it will cost. Nothing here trains."""
