"""What the notebooks call: each function takes values and returns tables or pictures, and knows no notebook."""
