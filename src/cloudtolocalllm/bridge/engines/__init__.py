"""The model engines at home: finding them, asking them, knowing how they are."""
