"""What Sphinx needs beside the pages themselves to build the site."""
