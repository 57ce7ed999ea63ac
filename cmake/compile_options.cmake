# Warnings are errors; contraction is off, because the result of every float operation is part of
# the contract (one answer on every instruction set).
function(edgemoe_compile_options target)
  target_compile_options(${target} PRIVATE
    -Wall -Wextra -Wconversion -Wshadow -Werror
    -ffp-contract=off -fno-math-errno -fno-trapping-math)
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
    # Misfires on std::string's operator+ (GCC bug 105651).
    target_compile_options(${target} PRIVATE -Wno-restrict)
  endif()
  if(EDGEMOE_SANITIZE)
    target_compile_options(${target} PRIVATE -fsanitize=${EDGEMOE_SANITIZE} -fno-omit-frame-pointer
                                             -fno-sanitize-recover=all)
    target_link_options(${target} PUBLIC -fsanitize=${EDGEMOE_SANITIZE})
  endif()
endfunction()
