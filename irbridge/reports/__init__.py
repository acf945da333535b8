"""Tables, pages, plots and cards from records."""
