"""For nnU-Net's own commands: it looks for trainers in the folders that ``nnUNet_extTrainer`` names.

nnU-Net forgets what it imported from such a folder, so the classes live in the installed package.
"""

from cardiosynth.segmentation.losses import ConfidenceWeights
from cardiosynth.segmentation.nnunet.schedule import Schedule
from cardiosynth.segmentation.nnunet.trainer import configured_trainer, nnUNetTrainerCAL

nnUNetTrainerCAL_800epochs = configured_trainer(Schedule(epochs=800), ConfidenceWeights())
nnUNetTrainer_800epochs = configured_trainer(Schedule(epochs=800))
nnUNetTrainer_200epochs = configured_trainer(Schedule(epochs=200))

__all__ = ["nnUNetTrainerCAL", "nnUNetTrainerCAL_800epochs", "nnUNetTrainer_200epochs", "nnUNetTrainer_800epochs"]
