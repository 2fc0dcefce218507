"""One expert trained by several processes: who does which share, what they exchange, and who starts them."""
