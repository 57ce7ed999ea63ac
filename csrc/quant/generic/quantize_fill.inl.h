// The table of the quantisers that the flags of the including file compile.
#pragma once

#include "quant/generic/feedback.inl.h"
#include "quant/generic/quantize_block32.inl.h"
#include "quant/generic/quantize_iq.inl.h"
#include "quant/generic/quantize_k.inl.h"

namespace edgemoe {
namespace {

inline void fill_feedback(QuantizerTable& table) noexcept {
  const auto set = [&](QuantType type, FeedBackFn feed_back) {
    table.feed_back[static_cast<size_t>(type)] = feed_back;
  };
  table.feed_from_earlier = feed_from_earlier;
  set(QuantType::kQ8_0, feed_back<WholeCodes<-127, 127>>);
  set(QuantType::kQ4_0, feed_back<WholeCodes<-8, 7>>);
  set(QuantType::kQ4_1, feed_back<WholeCodes<0, 15>>);
  set(QuantType::kQ5_0, feed_back<WholeCodes<-16, 15>>);
  set(QuantType::kQ5_1, feed_back<WholeCodes<0, 31>>);
  set(QuantType::kIQ4_NL, feed_back<Iq4Codes>);
  set(QuantType::kIQ4_XS, feed_back<Iq4Codes>);
  set(QuantType::kMXFP4, feed_back<Fp4Codes>);
  set(QuantType::kQ2_K, feed_back<WholeCodes<0, 3>>);
  set(QuantType::kQ3_K, feed_back<WholeCodes<-4, 3>>);
  set(QuantType::kQ4_K, feed_back<WholeCodes<0, 15>>);
  set(QuantType::kQ5_K, feed_back<WholeCodes<0, 31>>);
  set(QuantType::kQ6_K, feed_back<WholeCodes<-32, 31>>);
  set(QuantType::kIQ2_XXS, feed_back_IQ2_XXS);
  set(QuantType::kIQ2_XS, feed_back_IQ2_XS);
  set(QuantType::kIQ2_S, feed_back_IQ2_S);
  set(QuantType::kIQ3_XXS, feed_back_IQ3_XXS);
  set(QuantType::kIQ3_S, feed_back_IQ3_S);
}

inline void fill_quantizers(QuantizerTable& table) noexcept {
  const auto set = [&](QuantType type, QuantizeUnitFn quantize) {
    table.quantize[static_cast<size_t>(type)] = quantize;
  };
  set(QuantType::kQ8_0, quantize_Q8_0);
  set(QuantType::kQ4_0, quantize_Q4_0);
  set(QuantType::kQ4_1, quantize_Q4_1);
  set(QuantType::kQ5_0, quantize_Q5_0);
  set(QuantType::kQ5_1, quantize_Q5_1);
  set(QuantType::kIQ4_NL, quantize_IQ4_NL);
  set(QuantType::kMXFP4, quantize_MXFP4);
  set(QuantType::kQ2_K, quantize_Q2_K);
  set(QuantType::kQ3_K, quantize_Q3_K);
  set(QuantType::kQ4_K, quantize_Q4_K);
  set(QuantType::kQ5_K, quantize_Q5_K);
  set(QuantType::kQ6_K, quantize_Q6_K);
  set(QuantType::kIQ4_XS, quantize_IQ4_XS);
  set(QuantType::kIQ3_S, quantize_IQ3_S);
  set(QuantType::kIQ3_XXS, quantize_IQ3_XXS);
  set(QuantType::kIQ2_S, quantize_IQ2_S);
  set(QuantType::kIQ2_XS, quantize_IQ2_XS);
  set(QuantType::kIQ2_XXS, quantize_IQ2_XXS);
  fill_feedback(table);
}

}  // namespace
}  // namespace edgemoe
