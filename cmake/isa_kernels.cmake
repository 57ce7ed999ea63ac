# One object per instruction-set level, built with that level's flags and nothing else.
# A level is one line here, one file, and one line in csrc/kernels/dispatch.cpp.
function(edgemoe_isa_kernel target source)
  set(flags ${ARGN})
  if(EDGEMOE_ZIG)  # takes instruction sets of ARM with a CPU only
    list(TRANSFORM flags REPLACE "-march=armv8.2-a" "-mcpu=generic")
  endif()
  set_source_files_properties(${source} PROPERTIES COMPILE_OPTIONS "${flags}")
  target_sources(${target} PRIVATE ${source})
endfunction()

function(edgemoe_add_isa_kernels target)
  if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
    edgemoe_isa_kernel(${target} csrc/quant/x86/quantize_avx2.cpp
      -mavx2)
    edgemoe_isa_kernel(${target} csrc/kernels/x86/kernels_avx2.cpp
      -mavx2 -mfma -mf16c)
    edgemoe_isa_kernel(${target} csrc/kernels/x86/kernels_avx2_one_token.cpp
      -mavx2 -mfma -mf16c)
    edgemoe_isa_kernel(${target} csrc/kernels/x86/kernels_avxvnni.cpp
      -mavx2 -mfma -mf16c -mavxvnni)
    edgemoe_isa_kernel(${target} csrc/kernels/x86/kernels_avxvnni_one_token.cpp
      -mavx2 -mfma -mf16c -mavxvnni)
    edgemoe_isa_kernel(${target} csrc/kernels/x86/kernels_avxvnni_evex.cpp
      -mavx2 -mfma -mf16c -mavx512f -mavx512vl -mavx512vnni)
    edgemoe_isa_kernel(${target} csrc/kernels/x86/kernels_avxvnni_evex_one_token.cpp
      -mavx2 -mfma -mf16c -mavx512f -mavx512vl -mavx512vnni)
    edgemoe_isa_kernel(${target} csrc/kernels/x86/kernels_avx512.cpp
      -mavx2 -mfma -mf16c -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni)
    edgemoe_isa_kernel(${target} csrc/kernels/x86/kernels_avx512_one_token.cpp
      -mavx2 -mfma -mf16c -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni)
  elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "aarch64|arm64|ARM64")
    # The scalar level is compiled for the same CPUs as NEON, so NEON says what it is.
    edgemoe_isa_kernel(${target} csrc/kernels/arm/kernels_neon.cpp -DEDGEMOE_NEON)
    edgemoe_isa_kernel(${target} csrc/kernels/arm/kernels_dotprod.cpp
      -DEDGEMOE_NEON -march=armv8.2-a+dotprod)
    edgemoe_isa_kernel(${target} csrc/kernels/arm/kernels_dotprod_one_token.cpp
      -DEDGEMOE_NEON -march=armv8.2-a+dotprod)
    edgemoe_isa_kernel(${target} csrc/kernels/arm/kernels_i8mm.cpp
      -DEDGEMOE_NEON -march=armv8.2-a+dotprod+i8mm)
  endif()
endfunction()
