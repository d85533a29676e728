"""Rules of back-propagation by type of op: for rectifiers, and those of DeepLIFT; `graph.rules` puts them in force."""
