// The same product with the repacked kernels that llama.cpp takes for this CPU.
#include <cstdlib>
#include <cstring>
#include <vector>

extern "C" {
[[gnu::noinline]] void mark_begin() {
  asm volatile("");
}
[[gnu::noinline]] void mark_end() {
  asm volatile("");
}

using Kernel = void(int, float*, size_t, const void*, const void*, int, int);
Kernel ggml_gemv_q4_0_4x4_q8_0, ggml_gemm_q4_0_4x4_q8_0;
Kernel ggml_gemv_q8_0_4x4_q8_0, ggml_gemm_q8_0_4x4_q8_0;
Kernel ggml_gemv_q4_K_8x4_q8_K, ggml_gemm_q4_K_8x4_q8_K;
Kernel ggml_gemv_q6_K_8x4_q8_K, ggml_gemm_q6_K_8x4_q8_K;
float ggml_table_f32_f16[1 << 16];
}

struct Choice {
  const char* type;
  Kernel* vector;
  Kernel* matrix;
};
constexpr Choice kChoices[] = {
    {"Q4_0", ggml_gemv_q4_0_4x4_q8_0, ggml_gemm_q4_0_4x4_q8_0},
    {"Q8_0", ggml_gemv_q8_0_4x4_q8_0, ggml_gemm_q8_0_4x4_q8_0},
    {"Q4_K", ggml_gemv_q4_K_8x4_q8_K, ggml_gemm_q4_K_8x4_q8_K},
    {"Q6_K", ggml_gemv_q6_K_8x4_q8_K, ggml_gemm_q6_K_8x4_q8_K},
};

int main(int, char** words) {
  const int rows = std::atoi(words[2]);
  const int columns = std::atoi(words[3]);
  const int tokens = std::atoi(words[4]);
  // Zeros of any format; more than enough bytes for each.
  const std::vector<char> weights(static_cast<size_t>(rows) * columns * 2);
  const std::vector<char> x(static_cast<size_t>(tokens) * columns * 2);
  std::vector<float> out(static_cast<size_t>(rows) * tokens);
  for (const Choice& choice : kChoices) {
    if (std::strcmp(choice.type, words[1]) != 0) continue;
    Kernel* const kernel = tokens == 1 ? choice.vector : choice.matrix;
    mark_begin();
    kernel(columns, out.data(), rows, weights.data(), x.data(), tokens, rows);
    mark_end();
  }
}
