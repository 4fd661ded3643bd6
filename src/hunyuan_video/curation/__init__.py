"""From footage to the lists that `data prepare` reads: which parts of long videos are worth learning from, and why the others are not."""
