# Cross-compiles with Zig's C++ compiler, which brings libc++ and every glibc to link against:
# EDGEMOE_ZIG is the program, EDGEMOE_ZIG_TARGET such as aarch64-linux-gnu.2.17.
list(APPEND CMAKE_TRY_COMPILE_PLATFORM_VARIABLES EDGEMOE_ZIG EDGEMOE_ZIG_TARGET)
string(REGEX MATCH "^[^-]+" CMAKE_SYSTEM_PROCESSOR "${EDGEMOE_ZIG_TARGET}")
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_CXX_COMPILER ${EDGEMOE_ZIG} c++ -target ${EDGEMOE_ZIG_TARGET})
set(CMAKE_CXX_ARCHIVE_CREATE "${EDGEMOE_ZIG} ar qc <TARGET> <OBJECTS>")
set(CMAKE_CXX_ARCHIVE_FINISH "${EDGEMOE_ZIG} ranlib <TARGET>")
# What Zig brings has symbols for debuggers, ten times its size; GNU's strip knows one machine. The
# names of source files tell a test which code is for which level.
set(CMAKE_STRIP llvm-strip --strip-debug --keep-file-symbols)
