"""The name of what takes a model out of the GPU, where the first seed document looks for it."""

from ploutos.llm.gpu_unload import GPUMemoryManager as GPUMemoryManager
