// Finders of a logger, as TensorRT 10 and TensorRT 11 lay them out, and a logger that is neither's.
// TensorRT's lean runtime hands out its logger to nobody while there is no driver, so these hand
// out the one that its Python module made. No header of TensorRT: both layouts in one program.
#include <cstdint>

namespace nvinfer1 {

class IVersionedInterface {
 public:
  virtual int32_t getAPILanguage() const noexcept { return 0; }
  virtual const char* getInterfaceInfo() const noexcept { return ""; }
  virtual ~IVersionedInterface() noexcept = default;
};

class ILoggerFinder {
 public:
  virtual void* findLogger() = 0;
};

namespace v_1_0 {
class ILoggerFinder : public IVersionedInterface {
 public:
  virtual void* findLogger() = 0;
};
}  // namespace v_1_0

}  // namespace nvinfer1

namespace {

template <class Interface>
struct Finder final : Interface {
  void* logger = nullptr;
  void* findLogger() override { return logger; }
};

// As if a later TensorRT changed the class again: no call on it can be right.
struct Unknown {
  virtual void log() { __builtin_trap(); }
};

}  // namespace

extern "C" void* finder_of_tensorrt(int major, void* logger) {
  static Finder<nvinfer1::ILoggerFinder> ten;
  static Finder<nvinfer1::v_1_0::ILoggerFinder> eleven;
  static Unknown unknown;
  ten.logger = eleven.logger = logger ? logger : &unknown;
  if (major == 10) return static_cast<nvinfer1::ILoggerFinder*>(&ten);
  if (major == 11) return static_cast<nvinfer1::v_1_0::ILoggerFinder*>(&eleven);
  return &unknown;
}
