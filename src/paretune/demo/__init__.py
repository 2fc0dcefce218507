"""The page of `paretune demo`: a slider a reward, the base beside the aligned model, the front."""
