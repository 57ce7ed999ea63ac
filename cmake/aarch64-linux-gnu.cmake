# Cross-compiles for 64-bit ARM with Debian's g++-aarch64-linux-gnu.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
# The names of source files tell a test which code is for which level.
set(CMAKE_STRIP aarch64-linux-gnu-strip --strip-debug --keep-file-symbols)
