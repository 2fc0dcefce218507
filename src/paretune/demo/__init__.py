"""The page of `paretune demo`: a slider for each reward, the base beside the aligned model, and the front."""
