"""Galleries of pictures: codes and what is known of each picture, built, searched, saved and published."""
