// SPDX-License-Identifier: MIT
#include "Base64.h"

#include <openmm/OpenMMException.h>

#include <gtest/gtest.h>

#include <random>
#include <string>

namespace OpenMMFlow {

TEST(SerializationBase64, TestVectorsOfRfc4648) {
    const char* const vectors[][2] = {{"", ""}, {"f", "Zg=="}, {"fo", "Zm8="}, {"foo", "Zm9v"}, {"foob", "Zm9vYg=="},
            {"fooba", "Zm9vYmE="}, {"foobar", "Zm9vYmFy"}};
    for (const auto& [bytes, text] : vectors) {
        EXPECT_EQ(encodeBase64(bytes), text);
        EXPECT_EQ(decodeBase64(text), bytes);
    }
}

TEST(SerializationBase64, AllBytesOfAllLengthsComeBack) {
    std::mt19937 random(1);
    for (int length = 0; length < 300; length++) {
        std::string bytes(length, '\0');
        for (char& byte : bytes)
            byte = static_cast<char>(random());
        const std::string text = encodeBase64(bytes);
        EXPECT_EQ(text.size(), (bytes.size()+2)/3*4);
        EXPECT_EQ(decodeBase64(text), bytes);
    }
}

TEST(SerializationBase64, WhiteSpaceIsSkipped) {
    EXPECT_EQ(decodeBase64(" Zm9v\n\tYmFy\r\n"), "foobar");
}

TEST(SerializationBase64, OtherTextsAreRejected) {
    for (const char* text : {"Z", "Zg", "Zg=", "Zg===", "====", "Zm9v=", "Zm9vYg==Zm9v", "Zm9*", "Zm-_", "Z=m9"})
        EXPECT_THROW(decodeBase64(text), OpenMM::OpenMMException) << text;
}

} // namespace OpenMMFlow
