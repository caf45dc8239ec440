"""The one thing that setup.cfg cannot say: small C files, built where there is a compiler and done without where there is none."""

from setuptools import Extension, setup

setup(ext_modules=[
    Extension("charrnn.kernels._sequence", ["charrnn/kernels/_sequence.c"], depends=["charrnn/kernels/_sequence.h"],
              extra_compile_args=["-std=gnu11", "-O3", "-pthread"], extra_link_args=["-pthread"], optional=True),
    Extension("charrnn._step", ["charrnn/_step.c"], depends=["charrnn/_step.h", "charrnn/_helper.h"], libraries=["m"],
              extra_compile_args=["-std=gnu11", "-O3", "-pthread"], extra_link_args=["-pthread"], optional=True),
])
