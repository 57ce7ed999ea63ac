// Writes one JSON value: objects and arrays are opened and closed, commas are kept.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace edgemoe::bench {

class JsonWriter {
 public:
  void begin_object() { open('{'); }
  void end_object() { close('}'); }
  void begin_array() { open('['); }
  void end_array() { close(']'); }
  void key(std::string_view name);
  void value(std::string_view text);
  void value(double number);  // null when it is not finite
  void value(uint64_t number);
  template <class Value>
  void field(std::string_view name, Value content) {
    key(name);
    value(content);
  }

  const std::string& text() const noexcept { return text_; }

 private:
  void open(char bracket);
  void close(char bracket);
  void separate();
  void quote(std::string_view text);

  std::string text_;
  bool needs_comma_ = false;
};

}  // namespace edgemoe::bench
