"""Where does text come from? Recipes, tokenisation, and data-bins."""
