"""New anatomies without training: masks deformed smoothly, pieces and calibers kept, and templates chosen for them."""
