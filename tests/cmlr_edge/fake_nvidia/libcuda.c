// A driver without a GPU, told by environment variables what to say.
#include <stdlib.h>
#include <string.h>

static int number(const char* name, int otherwise) {
  const char* text = getenv(name);
  return text ? atoi(text) : otherwise;
}

int cuInit(unsigned flags) { return (int)flags + number("FAKE_CUINIT", 0); }
int cuDeviceGetCount(int* count) { return *count = number("FAKE_GPUS", 1), 0; }
int cuDeviceGet(int* device, int ordinal) { return *device = ordinal + 40, 0; }
int cuDriverGetVersion(int* version) { return *version = 12060, 0; }
int cuDeviceGetName(char* name, int length, int device) {
  const char* given = getenv("FAKE_GPU");
  strncpy(name, given ? given : "Orin", (size_t)length);
  return device != 40;
}
int cuDeviceTotalMem_v2(size_t* bytes, int device) { return *bytes = 8000000000, device != 40; }
int cuDeviceGetAttribute(int* value, int attribute, int device) {
  const int capability = number("FAKE_CAPABILITY", 87);
  *value = attribute == 75 ? capability / 10 : attribute == 76 ? capability % 10 : -1;
  return device != 40;
}
