"""What belongs to the command line as a whole: commands of plug-ins, completion in shells, and what is installed here."""
