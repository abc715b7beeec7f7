"""Where does text come from? Recipes that turn corpora into data-bins."""
